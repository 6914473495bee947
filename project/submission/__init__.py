"""Submission files, whoever wrote them: checked, and compared."""
