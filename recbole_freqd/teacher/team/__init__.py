"""Several teachers as one: members, their weights, scores and features."""

from recbole_freqd.teacher.team.member import TeamMember
from recbole_freqd.teacher.team.team import TeamRanker
from recbole_freqd.teacher.team.team_features import team_features

__all__ = ["TeamMember", "TeamRanker", "team_features"]
