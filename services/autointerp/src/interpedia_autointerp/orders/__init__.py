"""What orders of all kinds share: runs and budget with the job, its live result, and how it stops."""
