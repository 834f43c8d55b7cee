"""Iterate over what a server makes: ``client.py PYRO:...``."""

import itertools
import sys

from pyroplug.api import Proxy

with Proxy(sys.argv[1]) as numbers:
    print("a property:", list(numbers.letters))
    print("sum of 100000 squares:", sum(numbers.squares(100_000)))

    # the end of the block tells the server that no more are wanted; so does close(), or dropping the iterator
    with numbers.fibonacci() as sequence:
        print("first ten:", list(itertools.islice(sequence, 10)))

    # other calls in between do no harm, and a stream goes on over a new connection
    squares = numbers.squares(6)
    some = [next(squares) for _ in range(3)]
    numbers._pyroReconnect()
    print("before and after reconnecting:", some, list(squares))

    try:
        for number in numbers.countdown(3):
            print("countdown:", number)
    except RuntimeError as error:
        print("the generator's error:", error)
    numbers.stop()
