"""What a method can know about the call it serves."""

from pyroplug.api import Daemon, current_context, expose


@expose
class Desk:
    def ask(self) -> dict[str, object]:
        # a view of the call that runs in this thread; in other threads and calls it shows others
        context = current_context
        # binary extras for the reply, beside the result
        context.response_annotations = {"STMP": b"seen by the desk"}
        return {
            "client": context.client_sock_addr[0],
            "correlation": str(context.correlation_id),
            "annotation": context.annotations["NOTE"].decode(),
        }

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Desk()), flush=True)
    daemon.requestLoop()
