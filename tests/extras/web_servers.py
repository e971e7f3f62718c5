"""Servers on loopback for tests of what limits web applications."""

import socket
import threading
import time
import wsgiref.simple_server
from contextlib import contextmanager
from socketserver import ThreadingMixIn

import uvicorn


@contextmanager
def asgi(app, **options):
    """Run an ASGI application under uvicorn; gives its URL."""
    # By itself uvicorn believes whatever a proxy on this machine, here each client, says.
    config = uvicorn.Config(app, log_level="error", ws="wsproto", proxy_headers=False, **options)
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args):
        pass


class _Threaded(ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


@contextmanager
def wsgi(app):
    """Run a WSGI application under the standard library's server; gives its URL."""
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, app, _Threaded, _Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
