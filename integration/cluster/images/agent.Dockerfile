# tpctl/agent: docker build -f integration/cluster/images/agent.Dockerfile -t REGISTRY/tpctl/agent:VERSION .
# The same content as integration/cluster/images.py makes for the local cluster.
FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-pip ca-certificates
COPY pyproject.toml requirements.lock integration/cluster/images/requirements.py /source/
WORKDIR /source
RUN python3 requirements.py agent > wanted.txt \
 && python3 -m pip install --break-system-packages --no-compile --only-binary=:all: --target /site \
        -c requirements.lock -r wanted.txt
COPY tunnel /site/tunnel
COPY agent /site/agent
RUN find /site/tunnel /site/agent -depth -type d \( -name tests -o -name testing -o -name __pycache__ \) -exec rm -r {} +
# Some packages carry files for other versions of Python; they are never imported.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /site || true

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends python3 libstdc++6 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /site /usr/local/lib/python3.11/dist-packages
ENV LANG=C.UTF-8
USER 1000:1000
ENTRYPOINT ["python3", "-I", "-m", "agent.main"]
