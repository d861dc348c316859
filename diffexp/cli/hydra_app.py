"""One command of `diffexp` as a Hydra application: all of Hydra's flags, with messages of our own.

Hydra prints an error, suppresses it and exits with 1. Here the command line is composed first, every job of a
sweep is checked before the first one starts, and bad input ends as one message and exit code 2.
"""

import importlib
import os
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import hydra.version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus, run_job
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from diffexp.cli.config import conf_dir
from diffexp.cli.errors import AlreadyReported, raise_in_full, user_message
from diffexp.cli.sweep import Before, Check, RememberingLoader, check_jobs, compose_top, expand_sweep
from diffexp.errors import UserError
from diffexp.io.redact import printable

Task = Callable[[DictConfig], Any]


def run_hydra_app(
    task: Task,
    config_name: str,
    argv: Sequence[str],
    *checks: Check,
    name: str | None = None,
    launch: bool = True,
    before: Before | None = None,
) -> int:
    """Runs the task as Hydra would, on the command line `diffexp <config_name> <argv>`.

    Args:
        task: Takes the composed configuration. Imports what is heavy when called, not before.
        config_name: The primary configuration in conf/, and the command's name.
        argv: Overrides and Hydra's flags, in any order.
        checks: Called with the configuration of every job before the first one starts, all jobs with the first
            check, then all with the next; they raise a UserError for a job that cannot be run. Not called
            where a sweeper chooses its jobs while it runs.
        name: The command's name, where it is not the configuration's.
        launch: False to stop after the checks; a sweeper that chooses its jobs while it runs is then an error.
        before: Called with the overrides of a job before it is composed.

    Returns:
        The exit code: 0, 1 for a failed job of a launcher, 2 for a UserError, that of a SystemExit of the task (143
        after SIGTERM).

    Raises:
        Exception: A bug, with its traceback; with HYDRA_FULL_ERROR=1 a UserError too.
    """
    program = f"diffexp {name or config_name}"
    hydra.version.setbase("1.3")
    # conf/hydra/launcher/local.yaml is meant to be checked against the plugin's own schema of that name
    warnings.filterwarnings("ignore", r"\s*'hydra/launcher/local' is validated against ConfigStore schema")
    parser = get_args_parser()
    parser.prog = program
    # A launcher that starts this program again reads Hydra's flags from sys.argv, as Hydra does.
    with _argv([program, *argv]):
        try:
            args = parser.parse_intermixed_args(list(argv))
            _validate(args)
            if args.cfg or args.info or args.help or args.hydra_help or args.shell_completion:
                return _show(args, parser, task, args.config_name or config_name, before)
            return _run(args, task, args.config_name or config_name, checks, launch, before)
        except SystemExit as end:  # argparse, and Hydra after --help
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        except UserError as error:
            raise_in_full(error)
            print(printable(f"{program}: error: {error}"), file=sys.stderr)
            return 2


def _validate(args: Namespace) -> None:
    if args.experimental_rerun is not None:
        raise UserError("--experimental-rerun reads a pickle, which can run code. Repeat the command instead.")
    if args.config_dir is not None and not os.path.isdir(args.config_dir):  # noqa: PTH112
        raise UserError(f"--config-dir {args.config_dir}: there is no such folder.")
    modes = {"--run": args.run, "--multirun": args.multirun, "--cfg": args.cfg, "--info": args.info}
    if len(both := [flag for flag, on in modes.items() if on]) > 1:
        raise UserError(f"{' and '.join(both)} cannot be combined.")
    if args.resolve and not (args.cfg or args.help):
        raise UserError("--resolve goes with --cfg or --help: it prints the configuration with its values filled in.")


def finished(cfg: DictConfig) -> str | None:
    """A line about a job that is done already, from its command's own `finished`; None where it must run.

    For `hydra.launcher.skip`, which is one setting for all commands.
    """
    command = importlib.import_module(f"diffexp.cli.{HydraConfig.get().job.name}")
    own: Task | None = getattr(command, "finished", None)
    return own(cfg) if own else None


def _show(args: Namespace, parser: ArgumentParser, task: Task, config_name: str, before: Before | None) -> int:
    """Show what Hydra shows by itself, once the overrides are checked."""
    with _opened(args, task, config_name, before) as app:
        if args.hydra_help:
            app.hydra_help(config_name, parser, args)
            return 0
        overrides: list[str] = [] if args.shell_completion else args.overrides
        top = compose_top(app, config_name, overrides, RunMode.RUN)
        cast(RememberingLoader, app.config_loader).show_only(
            str(group).partition("/")[0] for group in top.hydra.runtime.choices
        )
        if args.help:
            app.app_help(config_name, parser, args)
        elif args.cfg:
            app.show_cfg(config_name, overrides, cfg_type=args.cfg, package=args.package, resolve=args.resolve)
        elif args.info:
            app.show_info(args.info, config_name, overrides)
        else:
            app.shell_completion(config_name, args.overrides)
    return 0


def _run(
    args: Namespace, task: Task, config_name: str, checks: Sequence[Check], launch: bool, before: Before | None
) -> int:
    with _opened(args, task, config_name, before) as app:
        overrides: list[str] = args.overrides
        top = compose_top(app, config_name, overrides, RunMode.MULTIRUN)
        mode: RunMode = RunMode.MULTIRUN if args.multirun else top.hydra.mode or RunMode.RUN
        if top.hydra.mode != mode:
            overrides = [*overrides, f"hydra.mode={mode.name}"]
        top = compose_top(app, config_name, overrides, mode)
        if mode is RunMode.RUN:
            check_jobs([overrides], partial(app.compose_config, config_name, run_mode=mode), checks)
        elif (jobs := expand_sweep(app, top)) is not None:
            check_jobs(jobs, partial(app.config_loader.load_sweep_config, top), checks)
        elif not launch:
            sweeper = top.hydra.sweeper.get("_target_")
            raise UserError(f"{sweeper} chooses its jobs while it runs: they cannot be listed beforehand.")
        if not launch:
            return 0
        run = _run_one if mode is RunMode.RUN else Hydra.multirun
        try:
            run(app, config_name, task, overrides)
        except Exception as error:
            return _failed(error)
    return 0


def _run_one(app: Hydra, config_name: str, task: Task, overrides: list[str]) -> None:
    """`Hydra.run`, but a failed job raises at once: Hydra would first print a line of its own about it."""
    config = app.compose_config(config_name, overrides, run_mode=RunMode.RUN)
    config.hydra.mode = RunMode.RUN
    callbacks = Callbacks(config)
    callbacks.on_run_start(config=config, config_name=config_name)
    context = HydraContext(config_loader=app.config_loader, callbacks=callbacks)
    done = run_job(task, config, job_dir_key="hydra.run.dir", job_subdir_key=None, hydra_context=context)
    callbacks.on_run_end(config=config, config_name=config_name, job_return=done)
    if done.status is not JobStatus.COMPLETED:
        raise cast(Exception, done._return_value)  # pyright: ignore[reportPrivateUsage]


def _failed(error: Exception) -> int:
    """Ends a run whose task or launcher raised."""
    raise_in_full(error)
    if isinstance(error, AlreadyReported):
        return 1
    if message := user_message(error):
        raise UserError(message) from error
    if isinstance(error, CompactHydraException) and not isinstance(error, InstantiationException):
        print(error, file=sys.stderr)  # Hydra's mark for an error that its text explains, such as a launcher's
        return 1
    raise error


@contextmanager
def _argv(argv: list[str]) -> Generator[None, None, None]:
    before, sys.argv = sys.argv, argv
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _opened(args: Namespace, task: Task, name: str, before: Before | None) -> Generator[Hydra, None, None]:
    """Hydra with the search path that `hydra.main` would give it, and a loader that remembers."""
    path = create_automatic_config_search_path(None, task.__module__, args.config_path or str(conf_dir()))
    if args.config_dir is not None:
        folder = f"file://{os.path.abspath(args.config_dir)}"  # noqa: PTH100
        path.prepend("command-line", folder, anchor=SearchPathQuery(provider="schema"))
    app = Hydra(name, RememberingLoader(path, before))
    GlobalHydra.instance().clear()
    GlobalHydra.instance().initialize(app)
    try:
        yield app
    finally:
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
