# The control plane: one image for web, the workers, beat and watcher.
#
# `make image` builds it: it fetches the wheels of requirements.txt on the host, with the host's own
# pip settings, and builds with no network. BASE is the same base that the workspaces' images have.
#
#   docker run cloudapp:<version> web              gunicorn, on WEB_LISTEN
#   docker run cloudapp:<version> worker           what people wait for
#   docker run cloudapp:<version> worker-later     what nobody waits for
#   docker run cloudapp:<version> worker-builds    images, one after another
#   docker run cloudapp:<version> worker-outside   what waits for other people's machines
#   docker run cloudapp:<version> beat | watcher
#   docker run cloudapp:<version> migrate          or any other management command
ARG BASE

FROM ${BASE} AS build
COPY wheels /build/wheels
COPY requirements.txt /build/requirements.txt
# pip stays in it: the worker fetches the wheels of workspace images with it.
RUN python3 -m venv /opt/cloudapp \
 && /opt/cloudapp/bin/pip --disable-pip-version-check --no-cache-dir install \
      --no-index --find-links /build/wheels --require-hashes --no-deps --only-binary :all: \
      --no-compile --requirement /build/requirements.txt
COPY source /app
# The settings want secrets before they load. These two die with this line.
RUN cd /app \
 && export LOCAL=1 STATIC_ROOT=/app/staticfiles \
      SECRET_KEY="$(python3 -c 'import secrets; print(secrets.token_urlsafe(48))')" \
      ROUTER_SECRET="$(python3 -c 'import secrets; print(secrets.token_urlsafe(48))')" \
 && /opt/cloudapp/bin/python manage.py collectstatic --no-input --verbosity 0 \
 && find /app -name __pycache__ -prune -exec rm -r {} + \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/cloudapp/lib /app

FROM ${BASE}
RUN groupadd --gid 10100 cloudapp \
 && useradd --uid 10100 --gid 10100 --no-create-home --home-dir /var/lib/cloudapp \
      --shell /usr/sbin/nologin cloudapp \
 && install -d -o 10100 -g 10100 /var/lib/cloudapp /run/cloudapp
COPY --from=build /opt/cloudapp /opt/cloudapp
COPY --from=build /app /app
ENV PATH=/opt/cloudapp/bin:/usr/local/bin:/usr/bin:/bin \
    DJANGO_SETTINGS_MODULE=cloudapp.settings \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STATIC_ROOT=/app/staticfiles \
    STATE_DIR=/var/lib/cloudapp \
    RUN_DIR=/run/cloudapp
WORKDIR /app
USER 10100:10100
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "cloudapp.local.entry"]
CMD ["web"]
