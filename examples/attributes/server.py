"""Remote attributes: exposed properties can be read, and written if they have a setter."""

from pyroplug.api import Daemon, expose


@expose
class Thermostat:
    def __init__(self) -> None:
        self._target = 20.0
        self.serial = "A-17"  # no property: never remote, whatever its name

    @property
    def target(self) -> float:
        return self._target

    @target.setter
    def target(self, degrees: float) -> None:
        if not 5 <= degrees <= 30:
            raise ValueError(f"{degrees} degrees is out of range")
        self._target = degrees

    @property
    def reading(self) -> float:
        return self._target - 0.5

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Thermostat()), flush=True)
    daemon.requestLoop()
