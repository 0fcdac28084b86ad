# What every server here shares: input from the environment, a port, one JSON line out, an end when the test ends.
import asyncio
import json
import logging
import os
import socket
import sys
import threading

import uvicorn

os.environ["COLUMNS"] = "1000"  # else rich breaks the lines of the log, and tests read it
given = json.loads(os.environ.pop("JAGWAY_PART"))

# Bound before anything is built: the issuer holds the port. Nobody else can take it in between.
# With the protocol named: else asyncio takes it for something that needs no TCP_NODELAY, and answers wait 40 ms.
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
listener.bind(("127.0.0.1", 0))
origin = f"http://127.0.0.1:{listener.getsockname()[1]}"


def serve(app, said: dict) -> None:
    """Prints where things are and serves until stdin closes: a test that dies, by whatever way, leaves no orphan."""
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    listener.listen()  # from here on, who connects waits and is not refused
    print(json.dumps(said), flush=True)
    logging.getLogger("uvicorn.access").addHandler(logging.StreamHandler())
    access_log = given.get("access_log", True)  # who measures it does without
    server = uvicorn.Server(uvicorn.Config(app, log_level="info", log_config=None, access_log=access_log))
    asyncio.run(server.serve(sockets=[listener]))
