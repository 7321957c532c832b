"""The commands. `bin/NAME` and `aitom-ssl NAME` are the same: `aitom_ssl.cli.main(NAME, arguments)`."""

from aitom_ssl.cli.common import COMMANDS, console, main

__all__ = ["COMMANDS", "console", "main"]
