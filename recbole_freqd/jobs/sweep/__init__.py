"""What a student learnt of each frequency, and a metric against a key."""
