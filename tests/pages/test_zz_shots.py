import pytest, json, gzip
from pathlib import Path
from tests import builders
from tests.modelhub.corpora import make_cleaned, make_corpus
pytestmark=[pytest.mark.browser, pytest.mark.django_db(transaction=True)]
def test_shots(open_page, live_server, settings, tmp_path):
    settings.ARTIFACTS_DIR=tmp_path/"artifacts"; settings.RUNS_DIR=tmp_path/"runs"
    eve=builders.make_user("eve",is_staff=True)
    t=gzip.open('/work/wt/shared/data/sanguo.txt.gz','rt').read()
    import re
    chapters=[c for c in re.split(r"(?m)^(?=第.{1,6}回)",t)][:40]
    en=gzip.open('/work/wt/shared/data/tinyshakespeare.txt.gz','rt').read()
    docs=[en[i:i+2500] for i in range(0,300000,2500)]+chapters+[f"Short text {i}" for i in range(30)]+docs_(en)
    c=make_corpus(tmp_path, docs, licence="CC0-1.0")
    k=make_cleaned(tmp_path, c, thresholds={"fineweb.repeated_line_characters":None})
    for name,path in (("list","/hub/corpora/"),("import","/hub/corpora/import/"),("detail",f"/hub/corpora/{c.run.uid}/"),("rules",f"/hub/corpora/{c.run.uid}/rules/?rule=gopher.words_min"),("removed",f"/hub/corpora/{k.run.uid}/removed/"),("run",f"/hub/runs/{k.run.uid}/")):
        for scheme,wide in (("light",True),("dark",False)):
            p=open_page(eve,path,wide=wide,color_scheme=scheme); p.wait_for_timeout(300)
            w=p.evaluate("document.documentElement.scrollWidth-innerWidth")
            print(name,wide,"overflow",w)
            p.screenshot(path=f"/tmp/corp_{name}_{scheme}.png")
    from tests.pages.test_accessibility import violations
    for path in (f"/hub/corpora/{c.run.uid}/",f"/hub/corpora/{c.run.uid}/rules/?rule=gopher.words_min",f"/hub/corpora/{k.run.uid}/removed/","/hub/corpora/","/hub/corpora/import/"):
        p=open_page(eve,path); print(path,violations(p))
    p=open_page(eve,f"/hub/corpora/{c.run.uid}/rules/?rule=gopher.words_min")
    p.fill('input[name="threshold-gopher.words_min"]','5'); p.dispatch_event('input[name="threshold-gopher.words_min"]','change'); p.wait_for_timeout(1500)
    print(p.url[:200]); print(p.inner_text(".rule-view h3 >> nth=0")); print(p.input_value('#clean-form input[name="threshold-gopher.words_min"], input[form=clean-form][name="threshold-gopher.words_min"]'))
def docs_(en): return [en[i:i+1800].upper() for i in range(300000,400000,1800)]
