# What happens in a play, one JSON object to a line of stderr. Read by `cargo xtask provision`.
#
# What `op` prints is shown to nobody: a task that is `no_log` or calls `op` has no text here, and what it has
# registered is taken out of every later line.

import json
import re
import sys

from ansible.plugins.callback import CallbackBase
from ansible.template import Templar

DOCUMENTATION = """
    name: xtask_events
    type: stdout
    short_description: events as lines of JSON
    description: Events as lines of JSON on stderr.
"""

MARK = "\x1e"
OP = re.compile(r"(^|[\s;&|(/])op\s")


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "xtask_events"

    def __init__(self, display=None, options=None):
        super().__init__(display=display, options=options)
        self.play = None
        self.hidden = set()

    def emit(self, **event):
        text = json.dumps(event, default=str)
        for secret in self.secrets():
            text = text.replace(json.dumps(secret)[1:-1], "[secret]")
        sys.stderr.write(MARK + text + "\n")
        sys.stderr.flush()

    # Registered values are there only after the task's own events.
    def secrets(self):
        found = set()
        facts = getattr(self.variables(), "_nonpersistent_fact_cache", {})
        for own in list(facts.values()):
            for name in self.hidden & set(own):
                collect(own[name], found)
        return sorted(found, key=len, reverse=True)

    def variables(self):
        return self.play.get_variable_manager() if self.play else None

    def calls_op(self, task):
        args = task.args if isinstance(task.args, dict) else {}
        argv = args.get("argv")
        words = " ".join(map(str, argv)) if isinstance(argv, list) else str(args.get("_raw_params", args.get("cmd", "")))
        return words if OP.search(words + " ") else None

    def result(self, result, state):
        task, values = result._task, result._result
        calls = self.calls_op(task)
        secret = "censored" in values or calls is not None or task.no_log is True
        if secret and task.register:
            self.hidden.add(task.register)
        event = {"event": "result", "host": result._host.get_name(), "task": task.get_name(), "state": state}
        if state in ("failed", "ignored", "unreachable"):
            event["calls"] = calls
            event["lines"] = [] if secret else reasons(values)
            event["hidden"] = secret
            event["place"] = task.get_path()
        self.emit(**event)

    def v2_playbook_on_play_start(self, play):
        self.play = play
        self.emit(event="play", name=play.get_name())

    def v2_playbook_on_task_start(self, task, is_conditional):
        self.emit(event="task", name=task.get_name())

    def v2_playbook_on_handler_task_start(self, task):
        self.emit(event="task", name=task.get_name(), handler=True)

    def v2_runner_on_ok(self, result):
        self.result(result, "changed" if result._result.get("changed") else "ok")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.result(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_unreachable(self, result):
        self.result(result, "unreachable")

    def v2_runner_on_skipped(self, result):
        self.result(result, "skipped")

    def v2_on_file_diff(self, result):
        if "censored" in result._result or self.calls_op(result._task):
            return
        for one in result._result.get("results", [result._result]):
            if one.get("diff") and one.get("changed"):
                self.emit(
                    event="diff",
                    host=result._host.get_name(),
                    task=result._task.get_name(),
                    text=self._get_diff(one["diff"]),
                )

    def v2_playbook_on_notify(self, handler, host):
        self.emit(event="notify", host=host.get_name(), handler=handler.get_name(), runs=self.runs(handler, host))

    # What a handler would run, as far as that is a command.
    def runs(self, handler, host):
        try:
            args = handler.args
            if handler.no_log is True or not isinstance(args, dict):
                return None
            words = args.get("argv", args.get("_raw_params", args.get("cmd")))
            if words is None:
                words = [str(args[key]) for key in ("name", "state") if key in args]
            values = self.variables().get_vars(play=self.play, host=host, task=handler)
            words = Templar(loader=self.play.get_loader(), variables=values).template(words)
            return " ".join(map(str, words)) if isinstance(words, list) else str(words)
        except Exception:
            return None

    def v2_playbook_on_stats(self, stats):
        self.emit(event="stats", hosts={host: stats.summarize(host) for host in stats.processed})


# Everything in a registered value that is long enough to be a secret.
def collect(value, found):
    if isinstance(value, dict):
        for key in ("stdout", "stderr", "content"):
            if isinstance(value.get(key), str):
                texts = [value[key].strip(), *value[key].splitlines()]
                found.update(text.strip() for text in texts if len(text.strip()) >= 4)
        for item in value.get("results", []):
            collect(item, found)


def reasons(values):
    lines = []
    for one in [item for item in values.get("results", []) if item.get("failed")] or [values]:
        for key in ("msg", "module_stderr", "stderr", "stdout"):
            text = one.get(key)
            if isinstance(text, str) and text.strip():
                lines.extend(text.strip().splitlines()[-20:])
                if key in ("module_stderr", "stderr"):
                    break
    return lines[-20:]
