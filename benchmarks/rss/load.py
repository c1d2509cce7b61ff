"""Load for the service of programs.py: python load.py PORT"""

from __future__ import annotations

import http.client
import json
import random
import sys
import threading

CONNECTIONS, REQUESTS = 16, 40


def client(port: int, number: int, failures: list[str]) -> None:
    chance = random.Random(number)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for turn in range(REQUESTS):
        if turn % 5 == 4:
            path, kind = "/upload", "text/plain"
            body = b"some line of text\n" * chance.randrange(1000, 60_000)
        else:
            path, kind = "/orders", "application/json"
            lines = [{"sku": f"s{n}", "price": n * 1.5, "count": n} for n in range(6)]
            body = json.dumps(
                [
                    {"id": n, "customer": f"customer {n}", "lines": lines}
                    for n in range(int(10 * 80 ** chance.random()))
                ]
            ).encode()
        connection.request("POST", path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            failures.append(f"{path}: {answer.status}")
    connection.close()


def main() -> int:
    failures: list[str] = []
    threads = [
        threading.Thread(target=client, args=(int(sys.argv[1]), number, failures))
        for number in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("\n".join(failures[:5]), end="", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
