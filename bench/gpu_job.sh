#!/usr/bin/env bash
# What one NVIDIA GPU can show in ten minutes:       bash bench/gpu_job.sh OUT_FOLDER [--budget-s 570] [--small]
# It writes OUT_FOLDER/gpu_job.json: the machine, and each part with its status and numbers; see bench/gpu_job.py.
#
# Needs Python 3.11 or newer with a CUDA build of torch 2.11 or newer; PYTHON names another interpreter than python3.
# Packages that are missing are installed without their dependencies, into OUT_FOLDER/packages and nowhere else: the light
# ones of eyesmith and what they need, timm and open_clip_torch (the vocabulary, and the peers). WHEELS=/folder takes them
# from a folder of wheels, for a machine without a network. Where some cannot be had, the parts that need them fail alone.
set -uo pipefail

out=${1:?the folder to write, as: bash bench/gpu_job.sh OUT_FOLDER}
shift
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
mkdir -p "$out"
out=$(cd "$out" && pwd)
packages=$out/packages

# import name and package
wanted=(numpy:numpy PIL:pillow safetensors:safetensors huggingface_hub:huggingface_hub tokenizers:tokenizers ftfy:ftfy
  regex:regex cattrs:cattrs attrs:attrs tyro:tyro rich:rich matplotlib:matplotlib filelock:filelock wcwidth:wcwidth
  docstring_parser:docstring-parser typeguard:typeguard markdown_it:markdown-it-py mdurl:mdurl pygments:pygments
  typing_extensions:typing_extensions tqdm:tqdm packaging:packaging yaml:pyyaml requests:requests
  dateutil:python-dateutil six:six cycler:cycler kiwisolver:kiwisolver contourpy:contourpy fontTools:fonttools
  pyparsing:pyparsing open_clip:open_clip_torch timm:timm)
missing=()
for pair in "${wanted[@]}"; do
  PYTHONPATH=$packages "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('${pair%%:*}') is None)" \
    || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing into $packages: ${missing[*]}" >&2
  from=()
  [ -n "${WHEELS:-}" ] && from=(--no-index --find-links "$WHEELS")
  for name in "${missing[@]}"; do
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$packages" "${from[@]}" \
      -c "$here/constraints.txt" "$name" >&2 || echo "note: $name could not be installed" >&2
  done
fi

# eyesmith itself is read from the checkout; it asks for its own version, which a file in place of an installation tells
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$here/src/eyesmith/__init__.py")
mkdir -p "$packages/eyesmith-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: eyesmith\nVersion: %s\n' "$version" > "$packages/eyesmith-$version.dist-info/METADATA"

export PYTHONPATH=$here/src:$here:$packages EYESMITH_CACHE=$out/cache
cd "$here" || exit 1
exec "$python" -m bench.gpu_job "$out" "$@"
