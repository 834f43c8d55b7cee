"""Publish an object by name: ``pyroplug ns`` has to run, or any other name server."""

from pyroplug.api import Daemon, expose, type_meta


@expose
class Weather:
    def forecast(self, town: str) -> str:
        return f"{town}: sunny spells"

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    weather = Weather()
    # the name is ours as long as this program lives: it goes when the daemon is closed, and soon after a crash
    uri = daemon.publish(weather, "example.weather", metadata={"example", "english"} | type_meta(weather))
    print("published as example.weather:", uri, flush=True)
    daemon.requestLoop()
