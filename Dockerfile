# mdl in a container. Build: docker build -t mdl .   Use: docker run --rm -v models:/models mdl get bert-fa
ARG PYTHON=python:3.12-slim

FROM ${PYTHON} AS build
WORKDIR /src
COPY . .
RUN python3 -I -m venv /opt/mdl && /opt/mdl/bin/pip install --no-cache-dir '.[s3]'

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
