"""The smallest application of each framework, with a limit in front: /, /login and /free."""

from pyrate_limiter.extras import asgi, wsgi


def starlette_app(limits, **options):
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    app = Starlette(routes=[Route(path, lambda request: PlainTextResponse("ok")) for path in PATHS])
    app.add_middleware(asgi.RateLimitMiddleware, limits=limits, **options)
    return app


def fastapi_app(limits, **options):
    from fastapi import FastAPI

    app = FastAPI()
    for path in PATHS:
        app.add_api_route(path, lambda: "ok")
    app.add_middleware(asgi.RateLimitMiddleware, limits=limits, **options)
    return app


def quart_app(limits, **options):
    from quart import Quart

    app = Quart(__name__)

    async def ok():
        return "ok"

    for path in PATHS:
        app.add_url_rule(path, path, ok)
    app.asgi_app = asgi.RateLimitMiddleware(app.asgi_app, limits, **options)
    return app


def django_asgi_app(limits, **options):
    _set_django_up()
    from django.core.handlers.asgi import ASGIHandler

    return asgi.RateLimitMiddleware(ASGIHandler(), limits, **options)


def django_wsgi_app(limits, **options):
    _set_django_up()
    from django.core.handlers.wsgi import WSGIHandler

    return wsgi.RateLimitMiddleware(WSGIHandler(), limits, **options)


def flask_app(limits, **options):
    from flask import Flask

    app = Flask(__name__)
    for path in PATHS:
        app.add_url_rule(path, path, lambda: "ok")
    app.wsgi_app = wsgi.RateLimitMiddleware(app.wsgi_app, limits, **options)
    return app


PATHS = ["/", "/login", "/free"]
urlpatterns = []  # Django looks here


def _set_django_up():
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path

    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None)
        django.setup()
        urlpatterns.extend(path(where[1:], lambda request: HttpResponse("ok")) for where in PATHS)


ASGI = {
    "starlette": starlette_app,
    "fastapi": fastapi_app,
    "quart": quart_app,
    "django": django_asgi_app,
}
WSGI = {"flask": flask_app, "django": django_wsgi_app}
