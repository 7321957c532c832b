from aitom_ssl.cli.common import console

console()
