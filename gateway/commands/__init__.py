"""What the subcommands of `tollgate` do, one module each; `gateway.cli` parses the command line and calls them."""
