# docker build --tag lc .
# docker run --gpus all --ipc host --volume "$PWD/results:/lc/results" --volume "$HOME/.cache/lc:/data" \
#     --volume "$PWD/build:/lc/build" --env LC_GIT=$(git rev-parse --short=10 HEAD) lc \
#     notebooks/03_expansion.ipynb build/out.ipynb -p train True
FROM pytorch/pytorch:latest
ENV PIP_BREAK_SYSTEM_PACKAGES=1 LC_DATA_DIR=/data
WORKDIR /lc
COPY pyproject.toml README.md ./
COPY lc lc
RUN pip install --no-cache-dir --editable .
COPY results results
COPY notebooks notebooks
ENTRYPOINT ["papermill"]
