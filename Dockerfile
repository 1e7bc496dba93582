# The demo in a container, from nothing but Debian and the lock file:
#   docker build --tag cifar-report .
#   docker run --rm --volume "$PWD/out:/study/results" cifar-report   # out/demo/report.pdf; out must be writable by user 1000
FROM debian:bookworm-slim

# TeX by the script that `make setup` uses, so that there is one list of packages.
COPY workflow/scripts/ensure-tex /tmp/ensure-tex
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates git make python3 python3-venv \
 && /tmp/ensure-tex \
 && rm -rf /var/lib/apt/lists/* /tmp/ensure-tex

RUN useradd --uid 1000 --create-home study && install --directory --owner study /study
USER study
WORKDIR /study

# The environment is made from these alone, and stays in the cache while they do not change.
COPY --chown=study Makefile requirements.lock pyproject.toml README.md LICENSE ./
COPY --chown=study workflow/scripts/ensure-tex workflow/scripts/
COPY --chown=study src/cifar_report/__init__.py src/cifar_report/
RUN make setup && rm -rf ~/.cache

COPY --chown=study . .
CMD ["make", "demo"]
