"""Resource tracking: what a client has acquired is closed when its connection ends, however that happens."""

import threading

from pyroplug.api import Daemon, current_context, expose


class Line:
    """A telephone line that somebody must hang up in the end."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        with change:
            open_lines.remove(self)
            print("hung up:", self.number, flush=True)
            change.notify_all()


@expose
class Exchange:
    def dial(self, number: int) -> None:
        line = Line(number)
        # tracking does not keep the line alive; whoever uses it does
        open_lines.append(line)
        current_context.track_resource(line)

    def hang_up(self, number: int) -> None:
        for line in [line for line in open_lines if line.number == number]:
            current_context.untrack_resource(line)
            line.close()

    def busy(self) -> list[int]:
        return sorted(line.number for line in open_lines)

    def wait_until_free(self) -> bool:
        with change:
            return change.wait_for(lambda: not open_lines, timeout=10)

    def stop(self) -> None:
        daemon.shutdown()


open_lines: list[Line] = []
change = threading.Condition()

with Daemon() as daemon:
    print(daemon.register(Exchange()), flush=True)
    daemon.requestLoop()
