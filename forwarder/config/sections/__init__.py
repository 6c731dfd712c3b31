"""What does an operator set? A file for each section of the configuration, or for the few that belong together.

docs/config.md explains every setting; ``forwarder.config.settings`` is all of them under their names.
"""
