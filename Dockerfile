# The service as an image:  docker build -t qa .
#
# MODEL is `default` (the model that comes with the project), `exported` (what `make image` puts into
# models/exported; for neither torch is installed), a folder of the build context (a Hugging Face folder is
# exported, an exported one is taken as it is), or a hub id. A private hub model needs --secret id=hf_token,src=FILE.
# Wheels put into wheels/ are preferred to the index: builds without a network put all of them there
# (and ziglang, the compiler that deploy/native.sh names).
#
# For another kind of processor, --platform linux/arm64: its packages are installed under emulation
# (docs/deploy.md), while the model, which is the same for all, is exported on the machine's own.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# Another name only where PYTHON_IMAGE has but one platform, and not the one that builds.
ARG EXPORT_IMAGE=${PYTHON_IMAGE}

# --- artifact: the exported model, in /artifact
FROM --platform=${BUILDPLATFORM} ${EXPORT_IMAGE} AS artifact
ARG MODEL=distilbert/distilbert-base-cased-distilled-squad
ARG TORCH_INDEX
WORKDIR /build
COPY deploy/install.sh deploy/install_packages.py deploy/
COPY requirements*.txt ./
COPY requirements.txt wheel[s]/ wheels/
RUN --mount=type=cache,target=/root/.cache/pip \
    case $MODEL in default | exported) ;; *) WHEELS=wheels deploy/install.sh export /opt/export ;; esac
COPY deploy/bake.sh deploy/native.sh deploy/
COPY service/ service/
RUN --mount=type=cache,target=/root/.cache/pip \
    case $MODEL in default | exported) ;; *) WHEELS=wheels deploy/native.sh ;; esac
COPY export/ export/
ARG REVISION
ARG EXPORT_FLAGS
RUN --mount=type=bind,target=/context --mount=type=secret,id=hf_token \
    deploy/bake.sh /context "$MODEL" /artifact

# --- packages: the run-time virtual environment, cut to what inference needs
FROM ${PYTHON_IMAGE} AS packages
WORKDIR /build
COPY deploy/install.sh deploy/install_packages.py deploy/
COPY requirements*.txt ./
COPY requirements.txt wheel[s]/ wheels/
RUN --mount=type=cache,target=/root/.cache/pip WHEELS=wheels deploy/install.sh runtime /opt/qa
COPY deploy/trim.sh deploy/
RUN deploy/trim.sh /opt/qa
COPY service/ /app/service/
COPY deploy/native.sh deploy/install_packages.py /app/deploy/
RUN --mount=type=cache,target=/root/.cache/pip WHEELS=/build/wheels /app/deploy/native.sh \
    && rm -r /app/deploy \
    && /opt/qa/bin/python -m compileall -q /app/service

# --- the image
FROM ${PYTHON_IMAGE}
COPY --from=packages /opt/qa /opt/qa
COPY --from=packages /app /app
COPY --from=artifact /artifact /app/models/default
ENV PATH=/opt/qa/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    QA_HOST=0.0.0.0
WORKDIR /app
# A number, so that orchestrators can see that it is not root. Nothing is ever written but a
# heartbeat in /dev/shm, so a read-only root works.
USER 10001:10001
# The port is SageMaker's to choose where it runs several containers behind one endpoint.
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-m", "service", "health"]
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve"]
