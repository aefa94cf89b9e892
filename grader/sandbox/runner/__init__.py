"""What runs inside a cell. Standard library only: this folder is all that a cell sees of the grader.

A cell has three kinds of process. The *supervisor* (process 1) speaks with the worker, watches the running sample
and kills it. The *zygote* forks sample processes and never sees a program or an input, so that nothing of one
task can be found in the memory that the next sample inherits. The *sample* process runs untrusted code.
"""
