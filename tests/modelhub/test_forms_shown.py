"""How a form's fields are labelled: what may be left out, and nothing else, is called optional."""

from django.template.loader import render_to_string

from modelhub.forms import ImportModelForm


def test_only_what_may_be_left_out_is_called_optional() -> None:
    form = ImportModelForm()
    called = {
        name
        for name in ("location", "revision", "packaged", "role", "card")
        if "optional" in render_to_string("_field.html", {"field": form[name]})
    }
    assert called == {"revision", "card"}
