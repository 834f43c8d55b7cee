"""Several daemons in one loop and one thread: ``combine``."""

from pyroplug.api import Daemon, Kernel, expose


@expose
class Thing:
    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name

    def stop(self) -> None:
        public.shutdown()


# combine needs the multiplex loop: with the thread loop each daemon has threads of its own anyway
kernel = Kernel(settings={"SERVERTYPE": "multiplex"})
with Daemon(kernel=kernel) as public, Daemon(kernel=kernel) as internal:
    public.combine(internal)
    print(public.register(Thing("public")), internal.register(Thing("internal")), flush=True)
    public.requestLoop()
