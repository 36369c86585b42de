"""Compares methods and the student alone under equal conditions."""
