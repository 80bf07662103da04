def summarise(*a):
    raise SystemExit("todo")
