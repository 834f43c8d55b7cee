"""A factory: what it makes stays on the server, the client gets proxies."""

from pyroplug.api import Daemon, expose


@expose
class Account:
    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._balance = 0

    @property
    def owner(self) -> str:
        return self._owner

    @property
    def balance(self) -> int:
        return self._balance

    def deposit(self, amount: int) -> None:
        self._balance += amount


@expose
class Bank:
    def __init__(self) -> None:
        self._accounts: list[Account] = []

    def open(self, owner: str) -> Account:
        account = Account(owner)
        self._accounts.append(account)
        # registered objects travel as proxies; without this line the client would be sent a copy,
        # which it could not even read, as it has no such class
        daemon.register(account)
        return account

    def richest(self, accounts: list[Account]) -> Account:
        # a proxy for one of our own objects that comes back is still a proxy: calls on it go over the network
        return max(accounts, key=lambda account: account.balance)

    def close(self, owner: str) -> None:
        for account in [account for account in self._accounts if account.owner == owner]:
            self._accounts.remove(account)
            daemon.unregister(account)

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Bank(), "example.bank"), flush=True)
    daemon.requestLoop()
