"""The mixture pages: who sees them, what they tell, and that a launch takes what was kept."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import QueryDict
from django.test import Client
from django.urls import reverse

pytest.importorskip("numpy", reason="NumPy is not installed")

from modelhub.errors import ApplicationError
from modelhub.mixture_forms import ask_query, ask_read
from modelhub.models import Run, SavedMixture
from modelhub.selectors.mixtures import mixture_settings, mixture_tokenizer
from tests.modelhub.mixtures import make_rate, make_tokens

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(eve: User, signed_in: Any) -> Client:
    return signed_in(eve)


def query(*uids: str, **more: object) -> str:
    given = QueryDict(mutable=True)
    given.setlist("set", list(uids))
    sizes = {"tokens": "32768", "block_tokens": "8", "blocks_per_step": "4"}
    given.update({name.replace("__", "-"): str(value) for name, value in (sizes | more).items()})
    return given.urlencode()


def test_mixtures_do_not_exist_for_members_and_outsiders(
    alice: User, charlie: User, signed_in: Any
) -> None:
    for user in (alice, charlie):
        client = signed_in(user)
        for name in ("mixture_list", "mixture_plan"):
            assert client.get(reverse(name)).status_code == 404
        assert client.post(reverse("mixture_keep")).status_code == 404


def test_without_token_sets_the_page_says_what_comes_first(staff: Client) -> None:
    page = staff.get(reverse("mixture_plan")).content.decode()
    assert "No token sets yet" in page and reverse("method_launch", args=["tokenise"]) in page


def test_the_plan_tells_epochs_time_and_what_is_read_too_often(staff: Client) -> None:
    large, small = make_tokens("novels", 400_000), make_tokens("poems", 2_000)
    rate = make_rate(tokens_per_s=2048.0, parameters=16_384)
    uids = (large.run.uid, small.run.uid)
    weights = {f"weight-0-{uids[0]}": 1, f"weight-0-{uids[1]}": 1}
    asked = query(*uids, rate=rate.uid, by__0="hand", **weights)
    page = staff.get(f"{reverse('mixture_plan')}?{asked}").content.decode()
    assert "16 s" in page and "2,048 tokens a second" in page
    assert "worn out" in page and "1 beyond four times" in page
    assert page.count('class="mix-bar"') == 2


def test_a_refusal_is_told_and_the_form_stays(staff: Client) -> None:
    ours, other = make_tokens("ours", 20_000), make_tokens("other", 20_000, tokenizer="another")
    where = reverse("mixture_plan")
    page = staff.get(f"{where}?{query(ours.run.uid, other.run.uid)}").content.decode()
    assert "different tokenizers" in page and f'value="{ours.run.uid}" checked' in page


def test_what_could_be_read_stays_where_one_field_is_no_number(staff: Client) -> None:
    tokens = make_tokens("ours", 20_000)
    asked = f"{reverse('mixture_plan')}?{query(tokens.run.uid, tokens='many')}"
    response = staff.get(asked)
    assert response.status_code == 422
    page = response.content.decode()
    assert "Tokens: many is no number" in page and f'value="{tokens.run.uid}" checked' in page
    # htmx puts in place only what is answered with 200.
    assert staff.get(asked, headers={"HX-Request": "true"}).status_code == 200
    body = {"name": "base", "plan": response.context["query"]}
    assert staff.post(reverse("mixture_keep"), body).status_code == 302
    assert not SavedMixture.objects.exists()


def test_small_caps_and_weights_come_back_as_they_were_given(staff: Client) -> None:
    tokens = make_tokens("ours", 20_000)
    uid = tokens.run.uid
    asked = query(uid, by__0="hand", **{f"cap-{uid}": "0.004", f"weight-0-{uid}": "0.00004"})
    page = staff.get(f"{reverse('mixture_plan')}?{asked}").content.decode()
    assert 'value="0.004"' in page and 'value="4e-05"' in page
    ask = ask_read(QueryDict(f"set=x&cap-x=1.23456789&by-0=hand&weight-0-x={1 / 3}"))
    again = ask_read(QueryDict(ask_query(ask)))
    assert again == ask and again.caps == {"x": 1.23456789}


@pytest.mark.parametrize("text", ["1,5M", "1,50", "2147483648", "1e15"])
def test_a_decimal_comma_or_too_large_a_number_is_refused_by_its_label(text: str) -> None:
    assert ask_read(QueryDict("block_tokens=1,500")).block_tokens == 1500
    with pytest.raises(ApplicationError, match="Tokens of a block"):
        ask_read(QueryDict(f"block_tokens={text}"))


def test_another_blend_is_added_at_a_step_and_taken_away(staff: Client) -> None:
    tokens = make_tokens("novels", 20_000)
    where = reverse("mixture_plan")
    added = staff.get(f"{where}?{query(tokens.run.uid, add=1)}")
    assert added.status_code == 302 and "add=" not in added["Location"]
    assert "step-1=512" in added["Location"]
    page = staff.get(added["Location"]).content.decode()
    assert "Without the last change" in page
    dropped = staff.get(added["Location"] + "&drop=1")
    assert "step-1" not in dropped["Location"]


def test_what_htmx_pushes_does_not_add_again(staff: Client) -> None:
    tokens = make_tokens("novels", 20_000)
    response = staff.get(
        f"{reverse('mixture_plan')}?{query(tokens.run.uid, add=1)}", headers={"HX-Request": "true"}
    )
    assert response.status_code == 200
    assert "step-1=512" in response["HX-Push-Url"] and "add=" not in response["HX-Push-Url"]


def test_a_query_comes_back_as_it_was_asked() -> None:
    asked = query(
        "a" * 32, "b" * 32, by__0="hand", step__1=9, by__1="temperature", temperature__1=3
    )
    asked += f"&cap-{'b' * 32}=4&weight-0-{'a' * 32}=0.7&weight-0-{'b' * 32}=0.3"
    ask = ask_read(QueryDict(asked))
    assert ask.blends[0].weights == {"a" * 32: 0.7, "b" * 32: 0.3}
    again = ask_read(QueryDict(ask_query(ask)))
    assert ask_query(again) == ask_query(ask) and again.caps == ask.caps
    assert ask_read(QueryDict("tokens=1.5B")).tokens == 1_500_000_000
    for bad in ("tokens=0", "tokens=-3", "tokens=nan", "set=x&cap-x=1e99", "block_tokens=a"):
        with pytest.raises(ApplicationError):
            ask_read(QueryDict(bad))


def kept(staff: Client, *uids: str, **more: object) -> SavedMixture:
    body = {"name": "base", "note": "more poems", "plan": query(*uids, **more)}
    response = staff.post(reverse("mixture_keep"), body)
    saved = SavedMixture.objects.order_by("-pk").first()
    assert saved is not None and response["Location"] == reverse("mixture_detail", args=[saved.uid])
    return saved


def test_what_was_kept_shows_its_history(staff: Client) -> None:
    uids = [make_tokens(name, 20_000).run.uid for name in ("novels", "poems")]
    kept(staff, *uids)
    second = kept(staff, *uids, step__1=100, by__1="temperature")
    page = staff.get(reverse("mixture_detail", args=[second.uid])).content.decode()
    assert "base@1" in page and "base@2" in page and "from step 100" in page
    assert "more poems" in page and "None yet." in page
    assert staff.get(reverse("mixture_detail", args=["0" * 32])).status_code == 404
    listed = staff.get(reverse("mixture_list")).content.decode()
    assert "base@2" in listed and "eve" in listed
    change = staff.get(f"{reverse('mixture_plan')}?mixture={second.uid}").content.decode()
    assert 'name="step-1"' in change and 'value="100"' in change


def test_a_name_that_is_none_keeps_nothing(staff: Client) -> None:
    tokens = make_tokens("novels", 20_000)
    plan = query(tokens.run.uid)
    for body in ({"name": "no name!", "plan": plan}, {"name": "x", "plan": "set=none"}):
        response = staff.post(reverse("mixture_keep"), body)
        assert response.status_code == 302 and reverse("mixture_plan") in response["Location"]
    assert not SavedMixture.objects.exists()


def test_a_launch_takes_the_mixture_its_sets_in_their_order(staff: Client) -> None:
    poems, novels = (make_tokens(name, 20_000).run.uid for name in ("poems", "novels"))
    tokenizer = Run.objects.get(uid=novels).inputs.get(role="tokenizer").artifact
    made = Run.objects.create(
        program="train_tokenizer", config={}, status=Run.Status.SUCCEEDED, result={}
    )
    made.outputs.create(role="tokenizer", artifact=tokenizer)
    weights = {f"weight-0-{novels}": 3, f"weight-0-{poems}": 1}
    saved = kept(staff, novels, poems, by__0="hand", step__1=64, by__1="size", **weights)
    where = f"{reverse('method_launch', args=['pretrain'])}?mixture={saved.uid}"
    response = staff.get(where)
    form = response.context["form"]
    assert [value for value, _ in form.fields["input-tokens"].choices][:2] == [
        f"run/{novels}/tokens",
        f"run/{poems}/tokens",
    ]
    assert "base@1" in response.content.decode()
    # What the sets were made with is known, and a warm-up is shorter than the run.
    assert form["input-tokenizer"].value() == f"run/{made.uid}/tokenizer"
    steps, warmup = form["setting-steps"].value(), form["setting-warmup_steps"].value()
    assert warmup == (100 if steps >= 200 else steps // 10)
    body = {
        name: form[name].value()
        for name in form.fields
        if form[name].value() not in (None, "", False)
    }
    body |= {name: form[name].field.prepare_value(value) for name, value in body.items()}
    body |= {
        "model_name": "mixed",
        "input-tokens": list(form["input-tokens"].value()),
    }
    swapped = {**body, "key": "other", "input-tokens": body["input-tokens"][::-1]}
    refused = staff.post(where, swapped)
    assert refused.status_code == 422 and "another order" in refused.content.decode()
    sent = staff.post(where, body)
    assert sent.status_code == 302, sent.context["form"].errors
    run = Run.objects.get(program="pretrain")
    assert run.config["mixture"] == "base@1"
    assert run.config["shares"] == [0.75, 0.25]
    assert run.config["later_shares"] == {"64": [0.5, 0.5]}
    read = run.inputs.filter(role__startswith="tokens_").order_by("role")
    assert [one.artifact.made_by.get().run.uid for one in read] == [novels, poems]
    page = staff.get(reverse("mixture_detail", args=[saved.uid])).content.decode()
    assert run.uid in page


def test_sets_of_two_tokenizers_bring_none_and_a_long_run_keeps_its_usual_warm_up(db) -> None:
    pairs = [make_tokens("poems", 20_000), make_tokens("novels", 20_000, tokenizer="other")]
    mixture = SavedMixture.objects.create(
        name="m",
        number=1,
        tokens=10**9,
        block_tokens=256,
        blocks_per_step=16,
        blends=[{"shares": []}],
    )
    for place, output in enumerate(pairs):
        mixture.sources.create(place=place, name=str(place), output=output)
    assert mixture_tokenizer(mixture=mixture) == ""
    assert mixture_settings(mixture=mixture)["warmup_steps"] == 100
    mixture.tokens = 50 * 256 * 16
    assert mixture_settings(mixture=mixture)["warmup_steps"] == 5
