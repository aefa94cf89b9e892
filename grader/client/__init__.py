"""The HTTP client, for programs that use a grader service: synchronous and asynchronous."""
