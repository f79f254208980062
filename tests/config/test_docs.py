"""The documentation as pages: every file, its links to pages that are there, and nobody else's."""

import re

import pytest
from django.urls import reverse

from alignment.methods import METHODS
from config import docs


def test_every_page_is_shown_to_whoever_is_signed_in(alice, signed_in):
    client = signed_in(alice)
    for name in docs.page_names():
        answer = client.get(reverse("docs_page", args=[name]))
        assert answer.status_code == 200, name
        assert docs.page_read(name, root="/docs/").title in answer.content.decode()


def test_nobody_reads_it_unknown_and_no_other_file_is_had(client, alice, signed_in):
    assert client.get("/docs/launching/").status_code == 302
    inside = signed_in(alice)
    for path in ("nothing/", "../README/", "..%2FREADME/", "images/../index.md", "index.md"):
        assert inside.get(f"/docs/{path}").status_code == 404, path
    picture = inside.get("/docs/images/round.png")
    assert (picture.status_code, picture["Content-Type"]) == (200, "image/png")


def test_every_link_between_pages_leads_to_a_page_and_a_heading_of_it():
    html = {name: docs.page_read(name, root="/docs/").html for name in docs.page_names()}
    for name, text in html.items():
        assert not re.search(r'(href|src)="(?!https?:|#|/docs/)', text), name
        assert "<a>" not in text, f"{name} names a place that is no page"
        for page, anchor in re.findall(r'href="/docs/([^"#]*)/(?:#([^"]*))?"', text):
            assert page in html, (name, page)
            folder = page == docs.INDEX and anchor in docs.folder_names()
            assert not anchor or folder or f'id="{anchor}"' in html[page], (name, page, anchor)


def test_a_link_called_by_its_files_name_is_called_by_the_pages_title():
    assert '<a href="/docs/runs/">Runs: ' in docs.page_read("launching", root="/docs/").html


def test_mathematics_is_left_to_the_script_and_raw_html_is_text():
    html = docs.page_read("algorithms/dpo", root="/docs/").html
    assert '<span class="math">$r(x,y)' in html
    assert "<script" not in html


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_every_methods_launch_page_leads_to_its_document(method):
    assert method.docs_page in docs.page_names()
