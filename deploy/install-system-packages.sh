#!/usr/bin/env bash
# What the tests need beyond Python: headless Chromium, fonts for Chinese, PostgreSQL's server, and
# gettext, which compiles the translations.
set -euo pipefail

packages=()
# Debian has the shell by itself; elsewhere all of Chromium does as well, and slower.
if ! command -v chromium-headless-shell >/dev/null; then
  if apt-cache show chromium-headless-shell >/dev/null 2>&1; then
    packages+=(chromium-headless-shell fonts-noto-cjk)
  elif ! command -v chromium >/dev/null; then
    packages+=(chromium fonts-noto-cjk)
  fi
fi
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || packages+=(postgresql)
command -v msgcat >/dev/null || packages+=(gettext)
[ ${#packages[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "Install these by your system's means, or some tests will be skipped: ${packages[*]}" >&2
  exit 0
fi
run=()
[ "$(id -u)" -eq 0 ] || run=(sudo)
"${run[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${run[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}"
