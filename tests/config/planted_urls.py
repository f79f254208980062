"""The site's URLs, and two planted views: one open to everybody, one that breaks."""

from django.http import HttpRequest, HttpResponse
from django.urls import path
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from config.urls import urlpatterns as site_urls


class OpenApi(APIView):
    """A hole, for the walkers to find."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        return Response({"open": True})


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("broken on purpose")


urlpatterns = [
    *site_urls,
    path("planted/open", OpenApi.as_view(), name="planted_open"),
    path("planted/broken", broken, name="planted_broken"),
]
