"""How fast it is, beside its peers and beside plain sockets; ``make bench`` runs it."""
