"""Pushing a finished run to the Hub: last, with several attempts, and never at the expense of the run.

Everything is on disk before the first request. A Hub that is down or refuses costs a warning at the start and a message
at the end with the command that pushes later; the Trainer's own push would stop the run in its constructor.
"""

from __future__ import annotations

import logging
import re
import shlex
import time
from dataclasses import dataclass, field
from fnmatch import fnmatch

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

import hf_accel
from hf_accel.cli import is_main_process
from hf_accel.config.recipe import Recipe
from hf_accel.errors import UserError
from hf_accel.hub.card import write_card, write_notebook
from hf_accel.hub.publication import WEIGHTS, published_files
from hf_accel.report.finished_run import FinishedRun

logger = logging.getLogger(__name__)

WAITS_SECONDS = (1, 2, 4, 8)  # before each further attempt
LONGEST_WAIT_SECONDS = 60  # a Hub that asks for a longer pause is left alone


@dataclass(frozen=True)
class PushResult:
    """The outcome of a push."""

    repo_id: str
    url: str | None  # address of the model's page; None when the push failed
    error: str | None  # why it failed, in one line
    command: str  # pushes the folder, now or later
    files: list[str] = field(default_factory=list)  # uploaded, as paths in the repository

    def __str__(self) -> str:
        if self.error is None:
            return f"pushed {len(self.files)} files to {self.url}"
        return f"not pushed: {self.error}. The run is complete and saved; push it later with:\n  {self.command}"


def warn_early(recipe: Recipe) -> None:
    """Warn before training if something would stop the push at the end; asks the Hub once, when a push is asked for."""
    training = recipe.training
    if not training.get("push_to_hub") or not is_main_process():
        return
    if training.get("hub_strategy") in ("checkpoint", "all_checkpoints"):
        logger.warning(
            "hub_strategy: %s uploads optimizer and scheduler states, which are pickles. Only the finished model is "
            "pushed, as with hub_strategy: end.",
            training["hub_strategy"],
        )
    problem = hub_problem(training.get("hub_model_id"), training.get("hub_token"))
    if problem:
        logger.warning(
            "push_to_hub: %s. The run continues and is saved; if this lasts, push it later with `hf-accel push FOLDER`.",
            problem,
        )


def hub_problem(hub_model_id: str | None, token: str | None = None) -> str | None:
    """Why a push to `hub_model_id` would fail now, in one line, as far as one request can tell; None when it should not."""
    if hub_model_id is not None:
        try:
            validate_repo_id(hub_model_id)
        except HFValidationError as error:
            return f"hub_model_id {hub_model_id!r} is not a name of a repository: {_one_line(error, token)}"
    try:
        account = HfApi(token=token, library_name="hf_accel", library_version=hf_accel.__version__).whoami()
    except Exception as error:  # httpx before huggingface_hub 2.0, httpx2 since: no common base to name
        return _why(error, token)
    role = (account.get("auth") or {}).get("accessToken", {}).get("role")
    if role == "read":
        return f"the token of {account['name']} may only read. Make one that may write: {constants.ENDPOINT}/settings/tokens"
    owner = (hub_model_id or "").rpartition("/")[0]
    mine = [account["name"], *(organisation["name"] for organisation in account.get("orgs", []))]
    if owner and owner not in mine:
        return f"the token belongs to {account['name']}, which may not write to {owner} ({', '.join(mine)} only)"
    return None


def push_if_asked(run: FinishedRun) -> PushResult | None:
    """Push a finished run when its recipe says `push_to_hub`, and log the outcome."""
    training = run.recipe.training
    if not training.get("push_to_hub"):
        return None
    result = push_run(
        run,
        hub_model_id=training.get("hub_model_id"),
        private=training.get("hub_private_repo"),
        revision=training.get("hub_revision"),
        token=training.get("hub_token"),
    )
    logger.log(logging.INFO if result.error is None else logging.WARNING, "%s", result)
    return result


def push_run(
    run: FinishedRun,
    *,
    hub_model_id: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> PushResult:
    """Upload a finished run in one commit; a push that fails is a result, not an exception.

    Args:
        run: the finished run; a card or a notebook that is missing is made.
        hub_model_id: `name` or `owner/name`; None names it as the run's default folder is named.
        private: None leaves it to the account's default.
        revision: branch, made when it does not exist.
        token: None takes HF_TOKEN or the token of `hf auth login`.
    """
    recipe, folder = run.recipe, run.folder
    missing = [
        write for path, write in ((folder.card, write_card), (folder.notebook, write_notebook)) if not path.is_file()
    ]
    if missing:
        with folder.additions():
            for write in missing:
                write(run)
    name = hub_model_id or repository_name(recipe)
    words = ["hf-accel", "push", str(folder.path), "--hub_model_id", name]
    words += (["--private"] if private else []) + (["--revision", revision] if revision else [])
    command = shlex.join(words)
    for wait in (*WAITS_SECONDS, None):
        try:
            return _push(run, name, private, revision, token, command)
        except UserError:
            raise
        except Exception as error:  # whatever the Hub or the network does, the run has succeeded
            pause = _pause(error, wait)
            if pause is None:
                return PushResult(repo_id=name, url=None, error=_why(error, token), command=command)
            logger.info("push: %s; trying again in %d s", _why(error, token), pause)
            time.sleep(pause)
    raise AssertionError("the last attempt returns")


def repository_name(recipe: Recipe) -> str:
    """The name of a run's folder as the Hub takes names: ASCII letters, digits, single - and ., at most 96 of them."""
    name = recipe.output_name or recipe.name
    text = name if recipe.variant == "default" else f"{name}-{recipe.variant}"
    return re.sub(r"([-.])[-.]+", r"\1", re.sub(r"[^A-Za-z0-9._-]+", "-", text))[:96].strip("-.") or "model"


def _push(
    run: FinishedRun, name: str, private: bool | None, revision: str | None, token: str | None, command: str
) -> PushResult:
    api = HfApi(token=token, library_name="hf_accel", library_version=hf_accel.__version__)
    repo = api.create_repo(name, private=private, exist_ok=True)
    if revision is not None:
        api.create_branch(repo.repo_id, branch=revision, exist_ok=True)
    files = published_files(run, repo.repo_id)
    # Weights of an earlier push would be loaded in place of these where the files are split differently.
    present = api.list_repo_files(repo.repo_id, revision=revision)
    old = [path for path in present if path not in files and any(fnmatch(path, pattern) for pattern in WEIGHTS)]
    api.create_commit(
        repo.repo_id,
        operations=[
            *(CommitOperationDelete(path) for path in old if "/" not in path),
            *(CommitOperationAdd(path, content) for path, content in files.items()),
        ],
        commit_message=f"{run.recipe.name}: model, card and report",
        revision=revision,
    )
    return PushResult(repo_id=repo.repo_id, url=str(repo), error=None, command=command, files=sorted(files))


def _pause(error: Exception, wait: int | None) -> int | None:
    """Seconds until the next attempt; None: it would fail again, or there have been too many."""
    if wait is None or isinstance(error, (OfflineModeIsEnabled, LocalTokenNotFoundError, HFValidationError)):
        return None
    if not isinstance(error, HfHubHTTPError):
        return wait  # no answer at all: refused, reset, timed out
    status = error.response.status_code
    if status not in (408, 409, 429) and status < 500:
        return None
    asked = error.response.headers.get("Retry-After", "")
    pause = max(wait, int(asked)) if asked.isdigit() else wait
    return pause if pause <= LONGEST_WAIT_SECONDS else None


def _why(error: Exception, token: str | None) -> str:
    """One line a user can act on."""
    where = constants.ENDPOINT
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so the Hub is not asked. Unset it to push"
    if isinstance(error, LocalTokenNotFoundError):
        return "no token was found. Log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, KeyError):  # the client reads the repository's url from a 409 without looking
        return f"{where} gave an answer without {error}"
    if not isinstance(error, HfHubHTTPError):
        return f"{where} did not answer ({_one_line(error, token)})"
    status = error.response.status_code
    advice = {
        401: "the token is missing or not valid. Log in with `hf auth login` or set HF_TOKEN",
        403: "the token may not write there. Make one that may, or choose another --hub_model_id",
        409: "another commit came in between, again and again",
        429: "too many requests in a short time",
    }.get(status)
    return f"{where} answered {status}" + (f": {advice}" if advice else f" ({_one_line(error, token)})")


def _one_line(error: Exception, token: str | None) -> str:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    for secret in (token, get_token()):
        if secret:
            text = text.replace(secret, "***")
    return text
