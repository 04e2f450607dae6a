#!/usr/bin/env bash
# build.sh FOLDER [--types] writes vendor.js and its licences to the folder and, if asked, checks the types of the assets.
# Needs npm and the packages of package-lock.json; no package runs a script of its own.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here"/{package.json,package-lock.json,entry.js} "$work"
cd "$work"
omit=dev
if [[ ${2:-} == --types ]]; then omit=; fi
npm ci --silent --ignore-scripts --no-audit --no-fund ${omit:+--omit=$omit}
npx --no-install esbuild entry.js --bundle --minify --format=esm --target=es2022 --log-level=warning --outfile=vendor.js
if [[ -z $omit ]]; then
    mkdir src
    cp "$here"/../assets/*.js src
    rm src/vendor.js src/theme.js
    cp "$here"/vendor.d.ts src
    npx --no-install tsc --allowJs --checkJs --noEmit --strict --target es2023 --lib es2023,dom,dom.iterable \
        --module nodenext --moduleResolution nodenext src/app.js
fi
{
    for package in preact htm; do
        printf 'vendor.js contains %s %s:\n\n' "$package" "$(node -p "require('./node_modules/$package/package.json').version")"
        cat "node_modules/$package/LICENSE"
        printf '\n'
    done
} > vendor.LICENSE.txt
cp vendor.js vendor.LICENSE.txt "$out"
