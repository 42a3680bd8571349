"""Object stores: whether what reads them is installed, and where credentials are. Their values are never shown."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from configparser import ConfigParser, Error
from pathlib import Path
from typing import Final

from rts_batch.doctor.finding import Finding

NONE: Final = "no credentials found; public addresses need none"
PUBLIC: Final = "FSSPEC_S3_ANON"
CREDENTIALS: Final = ("aws_access_key_id", "credential_process", "role_arn", "sso_session", "sso_start_url")
"""What makes a profile of AWS one that signs in."""


def examine_stores() -> Iterator[Finding]:
    yield _s3() if _installed("s3fs") else Finding("warn", "s3://", "s3fs is not installed", "pip install s3fs")
    yield _gcs() if _installed("gcsfs") else _not_installed("gs://", "gcs")
    yield _azure() if _installed("adlfs") else _not_installed("az://", "azure")


def _not_installed(about: str, extra: str) -> Finding:
    return Finding("ok", about, f"not installed; where it is needed: pip install 'rts-batch[{extra}]'")


def _s3() -> Finding:
    about, pair = "s3://", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    there = [name for name in pair if os.environ.get(name)]
    if len(there) == 1:
        absent = pair[1 - pair.index(there[0])]
        return Finding(
            "warn", about, f"{there[0]} is set and {absent} is not", f"set {absent} too, or unset {there[0]}"
        )
    profile, profiles = os.environ.get("AWS_PROFILE"), _aws_profiles()
    if profile and profile not in profiles and not there:
        advice = f"aws configure --profile {profile}, or unset AWS_PROFILE"
        return Finding("warn", about, f"AWS_PROFILE is {profile!r}, and no file has credentials of that name", advice)
    found = [*there[:1], *_variables("AWS_WEB_IDENTITY_TOKEN_FILE"), *_variables("AWS_CONTAINER_CREDENTIALS")]
    places = [f"{name} in the environment" for name in found]
    if (profile or "default") in profiles:
        places.append(f"profile {profile or 'default'!r} in {profiles[profile or 'default']}")
    endpoint = next((name for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(name)), None)
    if os.environ.get(PUBLIC):
        places = [f"{PUBLIC} is set: nothing is signed, which only public buckets take"]
    none = f"no credentials found; public buckets are read with {PUBLIC}=true"
    return Finding("ok", about, ("; ".join(places) or none) + (f"; {endpoint} is set" if endpoint else ""))


def _gcs() -> Finding:
    about, variable = "gs://", "GOOGLE_APPLICATION_CREDENTIALS"
    path = os.environ.get(variable)
    if path and not os.access(path, os.R_OK):
        return Finding("warn", about, f"{variable} names {path}, which cannot be read", f"mend or unset {variable}")
    usual = _home() / ".config" / "gcloud" / "application_default_credentials.json"
    if path:
        return Finding("ok", about, f"the file that {variable} names")
    return Finding("ok", about, str(usual) if usual.is_file() else NONE)


def _azure() -> Finding:
    found = _variables("AZURE_STORAGE") + _variables("AZURE_CLIENT")
    return Finding("ok", "az://", f"{', '.join(found)} in the environment" if found else NONE)


def _variables(prefix: str) -> list[str]:
    return sorted(name for name, value in os.environ.items() if name.startswith(prefix) and value)


def _aws_profiles() -> dict[str, str]:
    """Names of the profiles that have credentials, with the file of each."""
    usual = {"AWS_CONFIG_FILE": "config", "AWS_SHARED_CREDENTIALS_FILE": "credentials"}
    found = {}
    for variable, name in usual.items():
        path, parser = os.environ.get(variable) or str(_home() / ".aws" / name), ConfigParser(interpolation=None)
        try:
            parser.read(path, encoding="utf-8")
        except (Error, OSError, UnicodeDecodeError):
            continue
        for section in parser.sections():
            if any(parser.has_option(section, option) for option in CREDENTIALS):
                found[section.removeprefix("profile ")] = path
    return found


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user id that the system does not know has none
        return Path(os.devnull)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
