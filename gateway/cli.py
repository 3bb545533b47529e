"""The command line. It only parses: what a subcommand needs is imported when it runs, so that `--help` is instant.

Exit status: 0 done; 1 not done, and the message says why; 2 the command line or the configuration is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway import __version__
from gateway.commands import (
    breakers_options,
    cache_options,
    keys_options,
    limits_options,
    route_options,
    runs_options,
    slo_options,
    top_options,
)
from gateway.config.problems import ConfigError
from gateway.errors import GatewayError

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `tollgate`; returns the exit status."""
    options = parser().parse_args(arguments)
    command: Command = options.command
    try:
        status = command(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells report it
    except BrokenPipeError:  # `tollgate journal cat | head`; nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ConfigError as error:
        return _failed(str(error), 2)
    except GatewayError as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(
        prog="tollgate", description="One gate that every LLM and tool call of an agent passes through."
    )
    root.add_argument("--version", action="version", version=f"tollgate {__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serving(commands)
    run = _add(commands, "run", _run, "run a command as one run of its own, with limits, through the gateway")
    runs_options.add_run(run, _state_options)
    seen = runs_options.Commands(_runs_list, _runs_decide, _runs_outcome)
    runs = _group(commands, "runs", "see runs, stop them, let them go on, say what they achieved")
    runs_options.add(runs, seen, _add, _state_options)
    top_options.add(commands, _top, _add, _state_options)
    _add_configuring(commands)
    _add_reading(commands)
    did = cache_options.Commands(_cache_show, _cache_embedder, _cache_eval, _cache_clear, _cache_feedback)
    cache_options.add(_group(commands, "cache", "answers already paid for"), did, _add, _state_options)
    keys_options.add(_group(commands, "keys", "virtual keys: who may call, and what"), _keys, _add, _state_options)
    limits = _group(commands, "limits", "limits of teams, keys, agents, models, ... while the gateway runs")
    limits_options.add(limits, _limits, _add, _state_options)
    learned = route_options.add(_group(commands, "route", "the choice between models"), _route_eval, _status, _add)
    breakers = _group(commands, "breakers", "upstreams that are left alone for a while, and why")
    breakers_options.add(breakers, _breakers, _add, _state_options)
    canary = _group(commands, "canary", "targets on trial for a share of the runs")
    status = _add(canary, "status", _status, "print how each canary stands, and on what evidence")
    pools = _group(commands, "bulkheads", "pools of places: who has one, waits, or was refused")
    listing = _add(pools, "list", _status, "show how full each pool is, also by worker")
    for command, name in ((status, "canary"), (learned, "learned"), (listing, "bulkheads")):
        command.set_defaults(of=name)
        command.add_argument("--json", action="store_true", help="JSON instead of text")
        _state_options(command)
    _add(commands, "version", _version, "print the versions of tollgate and of Python")
    return root


def _add_serving(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = _add(commands, "serve", _serve, "run the gateway until SIGTERM or Ctrl-C; SIGHUP reloads the configuration")
    _config_option(serve)
    _address_options(serve)
    serve.add_argument("--workers", type=int, metavar="N", help="processes that carry traffic")
    serve.add_argument("--state", metavar="DIR", help="directory of journal, ledger and everything else kept on disk")
    demo = _add(commands, "demo", _demo, "run the gateway with a fake upstream and scripted agents; needs no keys")
    _address_options(demo)
    demo.add_argument(
        "--seconds", type=runs_options.amount, default=25.0, metavar="S", help="when it is summed up (%(default)s)"
    )
    demo.add_argument("--once", action="store_true", help="end then, instead of going on until Ctrl-C")


def _add_configuring(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = _add(commands, "check", _check, "say what is wrong or doubtful in the configuration")
    _config_option(check)
    check.add_argument("--strict", action="store_true", help="fail on warnings too")
    config = _group(commands, "config", "the schema of the configuration, and the configuration in force")
    _add(config, "schema", _config_schema, "print the JSON Schema of tollgate.yaml")
    _config_option(_add(config, "show", _config_show, "print the configuration in force, without its secrets"))
    slo_options.add(_group(commands, "slo", "goals of service"), _slo_generate, _add, _config_option)


def _add_reading(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    journal = _group(commands, "journal", "the record of every call")
    cat = _add(journal, "cat", _journal_cat, "print the records, oldest first")
    cat.add_argument("--follow", "-f", action="store_true", help="go on with new records until Ctrl-C")
    cat.add_argument("--run", metavar="ID", help="only what belongs to this run")
    verify = _add(journal, "verify", _journal_verify, "check the journal for damage")
    for reader in (cat, verify):
        reader.add_argument("--json", action="store_true", help="JSON instead of text")
        _state_options(reader)
    ledger = _group(commands, "ledger", "calls, runs and tools in SQLite")
    _state_options(_add(ledger, "rebuild", _ledger_rebuild, "make the ledger again from the journal"))


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, command: Command, text: str
) -> argparse.ArgumentParser:
    added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    added.set_defaults(command=command)
    return added


def _group(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    group = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _config_option(command: argparse.ArgumentParser) -> None:
    text = "the configuration (default: $TOLLGATE_CONFIG, ./tollgate.yaml, built-in defaults)"
    command.add_argument("--config", type=Path, metavar="FILE", help=text)


def _address_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--listen", metavar="HOST:PORT", help="data port")
    command.add_argument("--admin", metavar="HOST:PORT", help="admin port")


def _state_options(command: argparse.ArgumentParser) -> None:
    _config_option(command)
    command.add_argument("--state", metavar="DIR", help="state directory, in place of the configured one")


def _overrides(options: argparse.Namespace) -> dict[str, object]:
    """What the command line says of the configuration. Secrets are no options: argv is readable by everyone."""
    given = vars(options)
    fields = ("listen", "admin", "workers", "state")
    return {field: given[field] for field in fields if given.get(field) is not None}


def _serve(options: argparse.Namespace) -> int:
    from gateway.supervisor import run

    return run(options.config, _overrides(options))


def _demo(options: argparse.Namespace) -> int:
    from gateway.testing.demo import run

    return run(seconds=options.seconds, stay=not options.once, overrides=_overrides(options))


def _run(options: argparse.Namespace) -> int:
    from gateway.commands.run import Limits, run

    command = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not command:
        return _failed("run: which command? tollgate run [OPTIONS] -- COMMAND ...", 2)
    limits = Limits(**{name: getattr(options, name) for name in Limits.__struct_fields__})
    given = (options.config, os.environ, _overrides(options))
    return run(command, limits, *given, name=options.name or "", agent=options.agent or "")


def _runs_list(options: argparse.Namespace) -> int:
    from gateway.commands.runs import listing

    return listing(options.config, os.environ, _overrides(options), limit=options.limit)


def _top(options: argparse.Namespace) -> int:
    from gateway.commands.top import run

    return run(options.config, os.environ, _overrides(options), every=options.every, once=options.once)


def _runs_decide(options: argparse.Namespace) -> int:
    from gateway.commands.runs import decide
    from gateway.policy.controls import Kind, Scope

    named = {Scope.RUN: "run", Scope.AGENT: "agent", Scope.KEY: "key_id", Scope.TEAM: "team"}
    scope, name = next((scope, name) for scope, name in named.items() if getattr(options, name, None))
    given = (options.config, os.environ, _overrides(options))
    reason, more = getattr(options, "reason", ""), getattr(options, "budget_usd", None)
    return decide(Kind(options.action), (scope, getattr(options, name)), *given, reason=reason, budget_usd=more)


def _runs_outcome(options: argparse.Namespace) -> int:
    from gateway.commands.runs import report

    outcome, value = options.achieved
    given = (options.config, os.environ, _overrides(options))
    return report(options.run, {"outcome": outcome, "value": value, "note": options.note}, *given)


def _check(options: argparse.Namespace) -> int:
    from gateway.commands.check import run

    return run(options.config, os.environ, strict=options.strict)


def _config_schema(_: argparse.Namespace) -> int:
    from gateway.commands.config import schema

    return schema()


def _config_show(options: argparse.Namespace) -> int:
    from gateway.commands.config import show

    return show(options.config, os.environ)


def _slo_generate(options: argparse.Namespace) -> int:
    from gateway.commands.slo import generate
    from gateway.recorder.slo_rules import DASHBOARD, RUNBOOK, Links

    links = Links(options.runbook or RUNBOOK, options.dashboard or DASHBOARD)
    return generate(options.config, os.environ, links, kubernetes=options.kubernetes)


def _journal_cat(options: argparse.Namespace) -> int:
    from gateway.commands.state import journal_directory
    from gateway.journal.commands import cat

    directory = journal_directory(options.config, os.environ, _overrides(options))
    return cat(directory, follow=options.follow, run=options.run, json=options.json)


def _journal_verify(options: argparse.Namespace) -> int:
    from gateway.commands.state import journal_directory
    from gateway.journal.commands import verify

    return verify(journal_directory(options.config, os.environ, _overrides(options)), json=options.json)


def _ledger_rebuild(options: argparse.Namespace) -> int:
    from gateway.commands.state import ledger_rebuild

    return ledger_rebuild(options.config, os.environ, _overrides(options))


def _cache_show(options: argparse.Namespace) -> int:
    from gateway.commands.cache import show

    return show(options.config, os.environ, _overrides(options))


def _cache_clear(options: argparse.Namespace) -> int:
    from gateway.commands.cache import clear
    from gateway.policy.cached import Chosen

    chosen = Chosen(**{name: getattr(options, name) for name in Chosen.__struct_fields__})
    return clear(options.config, os.environ, _overrides(options), chosen, options.tool)


def _cache_feedback(options: argparse.Namespace) -> int:
    from gateway.commands.cache import feedback

    said = {"verdict": options.verdict, "request_id": options.request, "entry": options.entry}
    return feedback(options.config, os.environ, _overrides(options), said)


def _cache_embedder(options: argparse.Namespace) -> int:
    from gateway.commands.embedder import complete

    if not complete():
        return 1
    from gateway.commands.embedder_try import prepare  # loads what the check above found

    return prepare(options.config, os.environ, _overrides(options))


def _cache_eval(options: argparse.Namespace) -> int:
    from gateway.semantic.parts import require

    require()
    from gateway.commands.cache_eval import Options, run

    asked = Options(options.file, options.target, options.seed, options.plot)
    return run(options.config, os.environ, _overrides(options), asked)


def _keys(options: argparse.Namespace) -> int:
    from gateway.commands.keys import run

    return run(options.config, os.environ, _overrides(options), vars(options))


def _limits(options: argparse.Namespace) -> int:
    from gateway.commands.limits import run

    return run(options.config, os.environ, _overrides(options), vars(options))


def _status(options: argparse.Namespace) -> int:
    from gateway.commands import bulkheads, canary, route_status

    status = {"canary": canary.status, "learned": route_status.status, "bulkheads": bulkheads.status}[options.of]
    return status(options.config, os.environ, _overrides(options), as_json=options.json)


def _route_eval(options: argparse.Namespace) -> int:
    from gateway.commands.route_eval import Plan, evaluate
    from gateway.policy.selection import Goal

    goal = Goal(options.quality if options.quality or options.cost else 0.97, options.cost)
    plan = Plan(options.folds, options.by_domain, options.plot)
    return evaluate(options.file, options.train, dict(options.price), goal, plan)


def _breakers(options: argparse.Namespace) -> int:
    from gateway.commands.breakers import run

    return run(options.config, os.environ, _overrides(options), vars(options))


def _version(_: argparse.Namespace) -> int:
    print(f"tollgate {__version__}, Python {sys.version.split()[0]}")
    return 0


def _failed(message: str, status: int = 1) -> int:
    print(f"tollgate: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
