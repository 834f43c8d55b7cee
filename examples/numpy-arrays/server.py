"""Arrays as arguments and results, with the default serializer and no pickle anywhere."""

import numpy as np

from pyroplug.api import Daemon, expose


@expose
class Lab:
    def histogram(self, samples: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
        print("got", samples.dtype, samples.shape, flush=True)
        return np.histogram(samples, bins)

    def solve(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.linalg.solve(a, b)

    def norm(self, vector: np.ndarray) -> np.float32:
        length: np.float32 = np.float32(np.linalg.norm(vector))
        return length

    def days(self) -> np.ndarray:
        return np.arange("2026-01-01", "2026-01-04", dtype="datetime64[D]")

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Lab()), flush=True)
    daemon.requestLoop()
