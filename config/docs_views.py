"""The documentation's pages. Whoever is signed in may read them."""

from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from config import docs

_FOLDERS = {"": _("Guides"), "algorithms": _("Methods"), "adr": _("Decisions")}


@require_safe
def docs_page(request: HttpRequest, page: str = docs.INDEX) -> HttpResponse:
    """One document, beside the list of all."""
    root = reverse("docs_index")
    found = docs.page_read(page, root=root)
    if found is None:
        raise Http404("Not found.")
    names = dict.fromkeys((*_FOLDERS, *docs.folder_names()))
    folders = [(name, _FOLDERS.get(name, name), docs.pages_of(name)) for name in names]
    return render(request, "docs/page.html", {"page": found, "folders": folders})


@require_safe
def docs_image(request: HttpRequest, image: str) -> HttpResponseBase:
    """A picture of the documentation."""
    if image not in docs.image_names():
        raise Http404("Not found.")
    return FileResponse((docs.FOLDER / image).open("rb"))
