-- A ledger as revision 0001 left it, with three requests. Never changed: tests migrate it to the newest revision.
CREATE TABLE requests (
	writer BIGINT NOT NULL,
	number BIGINT NOT NULL,
	request_id VARCHAR(128) NOT NULL,
	at BIGINT NOT NULL,
	"key" VARCHAR(128),
	api VARCHAR(32) NOT NULL,
	asked VARCHAR(256) NOT NULL,
	outcome VARCHAR(32) NOT NULL,
	status SMALLINT NOT NULL,
	error VARCHAR(64),
	model VARCHAR(256),
	role VARCHAR(8),
	reason VARCHAR(32),
	router VARCHAR(128),
	threshold DOUBLE PRECISION,
	win_rate DOUBLE PRECISION,
	decision_us DOUBLE PRECISION NOT NULL,
	streamed BOOLEAN NOT NULL,
	attempts INTEGER NOT NULL,
	own_ms DOUBLE PRECISION NOT NULL,
	upstream_ms DOUBLE PRECISION NOT NULL,
	first_byte_ms DOUBLE PRECISION,
	input_tokens BIGINT,
	output_tokens BIGINT,
	cached_input_tokens BIGINT,
	estimated BOOLEAN,
	nanodollars BIGINT,
	strong_nanodollars BIGINT,
	weak_nanodollars BIGINT,
	prompt TEXT,
	PRIMARY KEY (writer, number)
);
INSERT INTO "requests" VALUES(1234567890123456789,0,'request-1',1780000001000000,'key-1','chat','router-mf-0.5','answered',200,NULL,'openai/big','strong','threshold','mf',0.5,0.75,100.0,FALSE,1,0.5,20.0,12.5,1000,100,0,FALSE,3500000,3500000,210000,'Hello?');
INSERT INTO "requests" VALUES(1234567890123456789,1,'request-2',1780000002000000,NULL,'chat','router-mf-0.5','refused',400,'invalid_threshold',NULL,NULL,NULL,NULL,NULL,NULL,100.0,FALSE,1,0.5,20.0,12.5,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "requests" VALUES(1234567890123456789,2,'request-3',1780000003000000,NULL,'chat','router-mf-0.5','answered',200,NULL,'openai/small','weak','threshold','mf',0.5,0.25,100.0,FALSE,1,0.5,20.0,12.5,7,9,0,TRUE,6450,107500,6450,NULL);
CREATE TABLE routellm_revision (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT routellm_revision_pkc PRIMARY KEY (version_num)
);
INSERT INTO "routellm_revision" VALUES('0001');
CREATE INDEX ix_requests_at ON requests (at);
CREATE INDEX ix_requests_key_at ON requests ("key", at) WHERE key IS NOT NULL;
CREATE INDEX ix_requests_prompt_at ON requests (at) WHERE prompt IS NOT NULL;
