"""A server that restarts when told to: same port, same object id, so the URI stays good."""

from pyroplug.api import Daemon, expose


@expose
class Service:
    def __init__(self, generation: int) -> None:
        self._generation = generation
        self.restart_wanted = False

    def generation(self) -> int:
        return self._generation

    def restart(self) -> None:
        self.restart_wanted = True
        daemon.shutdown()

    def stop(self) -> None:
        daemon.shutdown()


port = 0
generation = 1
while True:
    service = Service(generation)
    # a random id would be another one after the restart, and the old URI would lead nowhere
    with Daemon(port=port) as daemon:
        uri = daemon.register(service, "example.service")
        if generation == 1:
            print(uri, flush=True)
        daemon.requestLoop()
    if not service.restart_wanted:
        break
    port = uri.port or 0
    generation += 1
