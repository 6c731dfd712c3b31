"""What can be typed at a terminal? One module a sub-command, with ``add_arguments(parser)`` and ``run(args) -> int``."""
