"""Methods and the student alone under equal conditions."""
