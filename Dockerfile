# mdl in a container. Build: docker build -t mdl .   Use: docker run --rm -v models:/models mdl get bert-fa
# Every package is the one whose digest is in requirements.txt; a release names the base by its digest (CONTRIBUTING.md).
ARG PYTHON=python:3.12.11-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
COPY . .
RUN python3 -I -m venv /opt/mdl \
 && /opt/mdl/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.txt \
 && /opt/mdl/bin/pip install --no-cache-dir --no-deps --no-build-isolation --no-index .

FROM ${PYTHON}
COPY --from=build /opt/mdl /opt/mdl
RUN ln -s /opt/mdl/bin/mdl /usr/local/bin/mdl \
 && useradd --uid 1000 --create-home mdl \
 && install -d -o mdl -g mdl /models
USER 1000
# The current folder is searched for catalog.toml and mdl.lock.
WORKDIR /home/mdl
ENV MDL_HOME=/models
ENTRYPOINT ["mdl"]
CMD ["--help"]
