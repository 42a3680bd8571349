"""Who is let in, and what a page may do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.review_desk import PAGE, PORT, TOKEN, Page, disc_video, page_of


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("guard")
    with page_of(folder, disc_video(folder, "clip", 6)) as page:
        yield page


@pytest.mark.parametrize("path", ["/", "/api/run", f"/{TOKEN}", f"/{TOKEN}x/api/run", f"/x{TOKEN}/", "/wrong/api/run"])
def test_without_the_token_there_is_nothing(page: Page, path: str) -> None:
    answer = page.client.get(path)
    assert answer.status_code == 403
    assert TOKEN not in answer.text


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", f"[::1]:{PORT}"])
def test_another_host_name_is_refused(page: Page, host: str) -> None:
    assert page.client.get(f"/{TOKEN}/api/run", headers={"host": host}).status_code == 403


def test_both_own_names_are_answered(page: Page) -> None:
    for host in (f"127.0.0.1:{PORT}", f"localhost:{PORT}"):
        assert page.client.get(f"/{TOKEN}/api/run", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", f"https://127.0.0.1:{PORT}", None]
)
def test_what_changes_something_comes_from_the_page(page: Page, origin: str | None) -> None:
    headers = {} if origin is None else {"origin": origin}
    answer = page.client.post(f"/{TOKEN}/api/corrections", json={"version": "none"}, headers=headers)
    assert answer.status_code == 403
    if origin is not None:
        assert page.client.get(f"/{TOKEN}/api/run", headers=headers).status_code == 403


def test_another_page_may_link_but_not_embed(page: Page) -> None:
    across = {"sec-fetch-site": "cross-site"}
    assert page.client.get(f"/{TOKEN}/", headers={**across, "sec-fetch-mode": "navigate"}).status_code == 200
    assert (
        page.client.get(
            f"/{TOKEN}/api/frame?id=clip&index=0", headers={**across, "sec-fetch-mode": "no-cors"}
        ).status_code
        == 403
    )


@pytest.mark.parametrize(
    "name",
    [
        "..%2fapp.py",
        "../app.py",
        "%2e%2e/app.py",
        "....//app.py",
        "..%5capp.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "app.py",
        "static",
        "x%00.js",
    ],
)
def test_no_address_leads_out_of_the_pages_folder(page: Page, name: str) -> None:
    answer = page.client.get(f"/{TOKEN}/{name}")
    assert answer.status_code in (403, 404)
    assert "import" not in answer.text
    assert "root:" not in answer.text


@pytest.mark.parametrize("name", ["../../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "clip/../clip", ""])
def test_a_videos_name_is_no_path(page: Page, name: str) -> None:
    for kind in ("frame", "masks", "video"):
        answer = page.get(kind, id=name, index=0, first=0)
        assert answer.status_code == 422
        assert "no finished video" in answer.json()["error"]


def test_the_policy_allows_the_page_itself_and_nothing_else(page: Page) -> None:
    for name in ("", "main.js", "style.css", "api/run"):
        answer = page.client.get(f"/{TOKEN}/{name}")
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert page.client.get(f"/{TOKEN}/main.js").headers["content-type"].startswith("text/javascript")


def test_the_pages_files_name_no_other_host(page: Page) -> None:
    for name in ("index.html", "style.css", "main.js", "api.js", "stage.js", "timeline.js", "tools.js", "video.js"):
        assert "//" not in page.client.get(f"/{TOKEN}/{name}").text.replace("// ", "").replace("\n//", "")


def test_too_much_at_once(page: Page) -> None:
    headers = {"origin": PAGE, "content-length": str(1 << 40)}
    assert page.client.post(f"/{TOKEN}/api/corrections", content=b"{}", headers=headers).status_code == 413
