"""The APIs of other graders: one file each, switched on by name. ``docs/compat.md`` says what each of them promises."""
