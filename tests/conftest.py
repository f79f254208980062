"""The cast: alice annotates, bob reviews, dana manages, eve is staff, charlie is outside."""

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import translation

from annotation.models import Membership, Project
from tests import builders


@pytest.fixture(autouse=True)
def language() -> Iterator[None]:
    """A request leaves its language in the thread: no test meets that of the one before."""
    yield
    translation.deactivate()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """The same number of threads in every process: sums in another order are other sums."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def project(db: None) -> Project:
    return builders.make_project("Helpfulness")


@pytest.fixture
def alice(project: Project) -> User:
    return builders.make_member(project, "alice", Membership.Role.ANNOTATOR).user


@pytest.fixture
def bob(project: Project) -> User:
    return builders.make_member(project, "bob", Membership.Role.REVIEWER).user


@pytest.fixture
def dana(project: Project) -> User:
    return builders.make_member(project, "dana", Membership.Role.MANAGER).user


@pytest.fixture
def charlie(db: None) -> User:
    """Manages another project, and is nobody here."""
    other = builders.make_project("Elsewhere")
    return builders.make_member(other, "charlie", Membership.Role.MANAGER).user


@pytest.fixture
def eve(db: None) -> User:
    return builders.make_user("eve", is_staff=True)


@pytest.fixture
def signed_in():
    """`signed_in(user)` → a client in which the user is signed in, CSRF checks off."""

    def client_for(user: User) -> Client:
        client = Client()
        client.force_login(user)
        return client

    return client_for
